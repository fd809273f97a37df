"""Alembic environment: runs on the connection it is given, inside that connection's transaction."""

from alembic import context

from edge.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=True,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
