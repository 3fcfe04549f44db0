-- How the scheduler was when it was last looked at, as JSON: a `Condition` of the API. NULL before the first look.
ALTER TABLE environment ADD COLUMN scheduler TEXT;
