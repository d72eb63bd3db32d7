-- What one create_user job asks of PostgreSQL, ledger row and stored reply included: the limit that the server sets.
\set n random(1, 1000000000000000)
BEGIN;
INSERT INTO job_ledger (job_id, job, outcome, code, detail, reply, digest)
VALUES (CAST(:n AS text), 'create_user', 'done', NULL, NULL, NULL, '\x00112233445566778899aabbccddeeff')
ON CONFLICT (job_id) DO NOTHING;
INSERT INTO users (email, username, hashed_password, is_active, inactive_since)
VALUES ('job' || CAST(:n AS text) || '@example.com', 'job' || CAST(:n AS text),
        '$argon2id$v=19$m=65536,t=3,p=4$c29tZXNhbHRzYWx0$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA', true, NULL)
RETURNING id, created_at;
UPDATE job_ledger SET reply = CAST(:reply AS json) WHERE job_id = CAST(:n AS text);
COMMIT;
