"""Speed and size beside peers, as ratios with limits: what `locas-agent bench` runs.

Nothing of the library depends on it.
"""
