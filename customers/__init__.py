"""The shop's memory: who its customers are, what they bought, and what was said about them.

Everything above this floor knows a customer only by a random key. Personal fields lie in one
table, sealed under a key of that person; a replay of an old day sees what was known that day.
"""
