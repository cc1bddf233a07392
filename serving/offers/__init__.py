"""The offer inventory, complementary offers, and ineligible offers."""
