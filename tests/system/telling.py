"""Makes a server tell a port of this machine of failed runs; a program, since it asks the server of PREFECT_API_URL."""

from __future__ import annotations

import sys

from prefect.blocks.notifications import CustomWebhookNotificationBlock

from deployments.apply import apply

if __name__ == "__main__":
    words = {"subject": "{{subject}}", "body": "{{body}}"}
    block = CustomWebhookNotificationBlock(
        name="test", url=f"http://127.0.0.1:{sys.argv[1]}/", json_data=words, headers=None, cookies=None
    )
    block.save("of-the-test", overwrite=True)
    apply(notify="custom-webhook/of-the-test")
