"""Policy as code: Cedar policies are read, checked, asked and explained."""
