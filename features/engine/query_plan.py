"""Query plans: what is computed, as expressions that an engine compiles for itself."""

import ibis
import ibis.expr.types as ir


class QueryPlan:
    """Steps over named tables, then outputs; each step is computed once for all that read it.

    `features.engine.duckdb` compiles the expressions to its SQL, which Spark's tasks run too.
    """

    def __init__(self) -> None:
        self.steps: list[tuple[str, ir.Table]] = []
        self.outputs: dict[str, ir.Table] = {}

    def add_step(self, table: ir.Table) -> ir.Table:
        """Add a step that computes `table` once; returns the table that later steps read."""
        name = f"step_{len(self.steps)}"
        self.steps.append((name, table))
        return ibis.table(table.schema(), name=name)

    def add_output(self, name: str, table: ir.Table) -> None:
        """Add a named output of the plan."""
        self.outputs[name] = table
