"""Tables and views for people: at-risk list, customer view, exports."""
