"""The inspection service: BentoML around dbp_mae.inspection, and the operators' page."""
