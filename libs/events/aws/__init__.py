"""AWS: what Lambda, SNS, SQS and Secrets Manager need."""
