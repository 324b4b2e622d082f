"""Named runs, as `prefect.yaml` lists them: method × base × hardware."""
