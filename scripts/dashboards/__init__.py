"""Builds the dashboards in `grafana/dashboards`; `python -m scripts.dashboards` writes them, and a test compares.

Each dashboard is a record of panels in a module of its own; `_build` turns records into what Grafana reads.
"""
