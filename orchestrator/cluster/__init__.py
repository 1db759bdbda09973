"""What ties sweeps to a cluster: profiles, submissions and what runs inside an allocation."""
