"""Slurm: profiles of jobs, facts about the cluster, Ray inside an allocation, and a cluster on one machine."""

import logging

logging.getLogger(__name__).addHandler(logging.NullHandler())  # a program that imports it decides what is shown
