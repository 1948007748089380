"""Tests of `locas_ray` without a cluster."""
