"""Running sweeps on a cluster: profiles, submissions, and the programs that run inside an allocation."""
