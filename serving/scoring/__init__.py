"""One file a question, used online and by the nightly run."""
