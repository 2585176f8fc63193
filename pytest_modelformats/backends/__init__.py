"""One file per runtime; the contract is :class:`pytest_modelformats.schema.Backend` and ``contract.Session``."""
