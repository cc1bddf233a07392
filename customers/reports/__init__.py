"""Tables and views for people and other programs: at-risk list, customer view, exports, reason texts."""
