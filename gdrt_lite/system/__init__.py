"""Files, machine, downloads and errors: what lies below the method."""
