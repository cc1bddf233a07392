"""Models: a few questions about customers, one learner each.

Every learner keeps four verbs (fit, score, save, load), takes frames and gives numbers, and knows nothing
of the database, the feature store or the registry. Asking one of them never loads the libraries of another.
"""
