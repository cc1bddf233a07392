"""The Feast feature store and its online stores."""
