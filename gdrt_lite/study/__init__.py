"""The study: settings, cells, comparisons and reports."""
