"""Posted records: several requests are stored and refreshed together, and too many are refused for a while."""
