"""Files on disk: artifacts, claims and journals, safe on file systems that many machines share."""
