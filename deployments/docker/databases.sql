-- Prefect's own database is made by the image; this one is beside it.
CREATE DATABASE mlflow;
