"""The effect of a contact (CATE): X-learner, cross-fitting, treatment data."""
