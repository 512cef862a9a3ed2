"""The executor on Celery: commands become messages, messages become attempts."""
