"""Steps of the tables, one a module; Alembic reads them."""
