"""What exporters have in common besides their base class: origin of a file, JSON beside a model, rows of a report."""
