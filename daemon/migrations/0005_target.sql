-- Where the environment runs: `local` or `modal`.
ALTER TABLE environment ADD COLUMN target TEXT NOT NULL DEFAULT 'local';
