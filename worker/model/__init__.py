"""The ground of the worker: jobs, outcomes, failures and the registry of job types. No I/O."""
