"""Tables, engine, migrations, and the counters of what has changed."""
