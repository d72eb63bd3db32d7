-- What the oracle notes, on tables that are there. All of it is written in the transaction that it is about, so that
-- what was rolled back leaves nothing here, but for the sequences, which nothing rolls back.

CREATE SEQUENCE IF NOT EXISTS seen_overlaps;
CREATE SEQUENCE IF NOT EXISTS seen_twice_at_once;

CREATE TABLE IF NOT EXISTS effect_log (
    seq bigserial PRIMARY KEY, xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    op text NOT NULL, tbl text NOT NULL, row_id bigint NOT NULL, written text,
    author_id bigint, at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE TABLE IF NOT EXISTS ledger_log (
    seq bigserial PRIMARY KEY, xid xid8 NOT NULL DEFAULT pg_current_xact_id(), job_id text NOT NULL, outcome text NOT NULL,
    began timestamptz NOT NULL DEFAULT transaction_timestamp()
);
CREATE TABLE IF NOT EXISTS ledger_changes (job_id text NOT NULL, was text NOT NULL, becomes text NOT NULL);
CREATE TABLE IF NOT EXISTS overlap_log (job_id text NOT NULL, holder text);

-- A row's order in the log is that of the commits: the sequence is taken while the row is locked.
CREATE OR REPLACE FUNCTION note_effect() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE r jsonb;
BEGIN
    IF TG_OP = 'DELETE' THEN r := to_jsonb(OLD); ELSE r := to_jsonb(NEW); END IF;
    INSERT INTO effect_log (op, tbl, row_id, written, author_id)
    VALUES (TG_OP, TG_TABLE_NAME, (r->>'id')::bigint, coalesce(r->>'username', r->>'title'), (r->>'author_id')::bigint);
    RETURN NULL;
END $$;

-- Who else has a transaction open for a key. One that is ending lets go of its id, for which others may wait, before it
-- lets go of the key: it has ended then.
CREATE OR REPLACE FUNCTION key_held_by(key text) RETURNS text LANGUAGE sql AS $$
    SELECT string_agg(concat_ws(' ', 'process', pid, 'since', xact_start, state, wait_event, query), '; ')
    FROM pg_locks held JOIN pg_locks own USING (pid) JOIN pg_stat_activity USING (pid)
    WHERE held.locktype = 'advisory' AND held.classid = 7 AND held.objid = (hashtext(key)::bigint & 4294967295)::oid
        AND held.granted AND pid <> pg_backend_pid()
        AND own.locktype = 'transactionid' AND own.mode = 'ExclusiveLock' AND own.granted
$$;

CREATE OR REPLACE FUNCTION note_ledger() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    key text := split_part(NEW.job_id, '@', 2);
    who text;
BEGIN
    INSERT INTO ledger_log (job_id, outcome) VALUES (NEW.job_id, NEW.outcome);
    -- Held until the transaction ends, whatever becomes of it. Two for one key must never be open at once.
    WHILE key <> '' AND NOT pg_try_advisory_xact_lock(7, hashtext(key)) LOOP
        who := key_held_by(key);
        IF who IS NOT NULL THEN
            PERFORM nextval('seen_overlaps');
            INSERT INTO overlap_log (job_id, holder) VALUES (NEW.job_id, who);
            EXIT;
        END IF;
        PERFORM pg_sleep(0.001);
    END LOOP;
    RETURN NULL;
END $$;

-- Before the row is there, and so before anybody waits for the transaction that has written the same one.
CREATE OR REPLACE FUNCTION note_try() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT pg_try_advisory_xact_lock(8, hashtext(NEW.job_id)) THEN
        PERFORM nextval('seen_twice_at_once');
    END IF;
    RETURN NEW;
END $$;

CREATE OR REPLACE FUNCTION note_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        INSERT INTO ledger_changes VALUES (OLD.job_id, OLD.outcome, 'gone');
    ELSIF OLD.outcome IS DISTINCT FROM NEW.outcome OR OLD.job_id IS DISTINCT FROM NEW.job_id
        OR (OLD.reply IS NOT NULL AND OLD.reply::text IS DISTINCT FROM NEW.reply::text) THEN
        INSERT INTO ledger_changes VALUES (OLD.job_id, OLD.outcome, NEW.outcome);
    END IF;
    RETURN NULL;
END $$;

CREATE OR REPLACE TRIGGER effect AFTER INSERT OR UPDATE OR DELETE ON users FOR EACH ROW EXECUTE FUNCTION note_effect();
CREATE OR REPLACE TRIGGER effect AFTER INSERT OR UPDATE OR DELETE ON posts FOR EACH ROW EXECUTE FUNCTION note_effect();
CREATE OR REPLACE TRIGGER attempt BEFORE INSERT ON job_ledger FOR EACH ROW EXECUTE FUNCTION note_try();
CREATE OR REPLACE TRIGGER entry AFTER INSERT ON job_ledger FOR EACH ROW EXECUTE FUNCTION note_ledger();
CREATE OR REPLACE TRIGGER change AFTER UPDATE OR DELETE ON job_ledger FOR EACH ROW EXECUTE FUNCTION note_change();
