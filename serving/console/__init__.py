"""Console: HTML pages for staff, with the at-risk list and one page per customer."""
