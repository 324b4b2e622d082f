"""Serves a deployment that ends well, fails or never ends, as the name of the concept says."""

from __future__ import annotations

import time

from prefect import flow


# Its annotations are builtins: `serve` sends the function without the names that only annotations use.
@flow(name="pretend")
def pretend(config: dict) -> None:
    name = config["concept"]["name"]
    if name == "bad":
        raise ValueError("there is no subject in it")
    if name == "slow":
        time.sleep(3600)


if __name__ == "__main__":
    pretend.serve(name="served", limit=4, print_starting_message=False)
