"""What can be protected: one port, one folder for each kind of source."""
