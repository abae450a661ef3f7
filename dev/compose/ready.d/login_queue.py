"""Creates the queue `login-queue` and sends the sample messages to it.

LocalStack runs this script when it is ready, in its own process and with its own boto3.
"""

import os
from pathlib import Path

import boto3

ENDPOINT = os.environ.get("AWS_ENDPOINT_URL", "http://localhost:4566")
MESSAGES = Path(os.environ.get("LOGIN_QUEUE_FILE", "/etc/localstack/init/login-queue.jsonl"))
# SQS takes 10 messages in a call.
BATCH = 10

sqs = boto3.client(
    "sqs",
    endpoint_url=ENDPOINT,
    region_name="us-east-1",
    aws_access_key_id="test",
    aws_secret_access_key="test",
)
queue = sqs.create_queue(QueueName="login-queue")["QueueUrl"]
bodies = MESSAGES.read_text().splitlines()
for start in range(0, len(bodies), BATCH):
    batch = bodies[start : start + BATCH]
    entries = [{"Id": str(place), "MessageBody": body} for place, body in enumerate(batch)]
    answer = sqs.send_message_batch(QueueUrl=queue, Entries=entries)
    if refused := answer.get("Failed"):
        raise RuntimeError(f"login-queue refused {len(refused)} messages: {refused[0]['Code']}")
