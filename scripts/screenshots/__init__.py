"""Draws the dashboards for the documentation, over a real run: `make screenshots`.

`_run` runs the demo beside a Prometheus, `_dashboard` asks that Prometheus what Grafana would ask, and `_pictures` has
the answers drawn by Grafana's own components, in a browser without a window. `web` is the page that it shows.
"""
