-- The oracle's log, on existing tables. Each entry is written in the transaction that it describes, so a rollback
-- removes it. Only the sequences survive a rollback.

CREATE SEQUENCE IF NOT EXISTS overlap_count;
CREATE SEQUENCE IF NOT EXISTS concurrent_attempts;

CREATE TABLE IF NOT EXISTS effect_log (
    seq bigserial PRIMARY KEY, xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    op text NOT NULL, tbl text NOT NULL, row_id bigint NOT NULL, written text,
    author_id bigint, at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE TABLE IF NOT EXISTS ledger_log (
    seq bigserial PRIMARY KEY, xid xid8 NOT NULL DEFAULT pg_current_xact_id(), job_id text NOT NULL, outcome text NOT NULL,
    began timestamptz NOT NULL DEFAULT transaction_timestamp()
);
CREATE TABLE IF NOT EXISTS ledger_changes (job_id text NOT NULL, before text NOT NULL, after text NOT NULL);
CREATE TABLE IF NOT EXISTS overlap_log (job_id text NOT NULL, holder text);

-- For one row, the order in the log is the order of commits: the sequence is taken while the row is locked.
CREATE OR REPLACE FUNCTION log_effect() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE r jsonb;
BEGIN
    IF TG_OP = 'DELETE' THEN r := to_jsonb(OLD); ELSE r := to_jsonb(NEW); END IF;
    INSERT INTO effect_log (op, tbl, row_id, written, author_id)
    VALUES (TG_OP, TG_TABLE_NAME, (r->>'id')::bigint, coalesce(r->>'username', r->>'title'), (r->>'author_id')::bigint);
    RETURN NULL;
END $$;

-- The other open transactions of a key. A transaction that ends releases its transaction id before its advisory locks.
-- Without the id it counts as ended.
CREATE OR REPLACE FUNCTION key_holders(key text) RETURNS text LANGUAGE sql AS $$
    SELECT string_agg(concat_ws(' ', 'process', pid, 'since', xact_start, state, wait_event, query), '; ')
    FROM pg_locks held JOIN pg_locks own USING (pid) JOIN pg_stat_activity USING (pid)
    WHERE held.locktype = 'advisory' AND held.classid = 7 AND held.objid = (hashtext(key)::bigint & 4294967295)::oid
        AND held.granted AND pid <> pg_backend_pid()
        AND own.locktype = 'transactionid' AND own.mode = 'ExclusiveLock' AND own.granted
$$;

CREATE OR REPLACE FUNCTION log_ledger() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    key text := split_part(NEW.job_id, '@', 2);
    holders text;
BEGIN
    INSERT INTO ledger_log (job_id, outcome) VALUES (NEW.job_id, NEW.outcome);
    -- The lock lasts until the end of the transaction. Two transactions of one key must never be open at once.
    WHILE key <> '' AND NOT pg_try_advisory_xact_lock(7, hashtext(key)) LOOP
        holders := key_holders(key);
        IF holders IS NOT NULL THEN
            PERFORM nextval('overlap_count');
            INSERT INTO overlap_log (job_id, holder) VALUES (NEW.job_id, holders);
            EXIT;
        END IF;
        PERFORM pg_sleep(0.001);
    END LOOP;
    RETURN NULL;
END $$;

-- Runs before the insert, which would wait for another transaction with the same job.
CREATE OR REPLACE FUNCTION log_attempt() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT pg_try_advisory_xact_lock(8, hashtext(NEW.job_id)) THEN
        PERFORM nextval('concurrent_attempts');
    END IF;
    RETURN NEW;
END $$;

CREATE OR REPLACE FUNCTION log_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        INSERT INTO ledger_changes VALUES (OLD.job_id, OLD.outcome, 'gone');
    ELSIF OLD.outcome IS DISTINCT FROM NEW.outcome OR OLD.job_id IS DISTINCT FROM NEW.job_id
        OR (OLD.reply IS NOT NULL AND OLD.reply::text IS DISTINCT FROM NEW.reply::text) THEN
        INSERT INTO ledger_changes VALUES (OLD.job_id, OLD.outcome, NEW.outcome);
    END IF;
    RETURN NULL;
END $$;

CREATE OR REPLACE TRIGGER effect AFTER INSERT OR UPDATE OR DELETE ON users FOR EACH ROW EXECUTE FUNCTION log_effect();
CREATE OR REPLACE TRIGGER effect AFTER INSERT OR UPDATE OR DELETE ON posts FOR EACH ROW EXECUTE FUNCTION log_effect();
CREATE OR REPLACE TRIGGER attempt BEFORE INSERT ON job_ledger FOR EACH ROW EXECUTE FUNCTION log_attempt();
CREATE OR REPLACE TRIGGER entry AFTER INSERT ON job_ledger FOR EACH ROW EXECUTE FUNCTION log_ledger();
CREATE OR REPLACE TRIGGER change AFTER UPDATE OR DELETE ON job_ledger FOR EACH ROW EXECUTE FUNCTION log_change();
