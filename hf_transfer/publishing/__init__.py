"""Licences, model card, lineage, the push and exports. Knows the report of a run and the Hub, never the trainer."""
