"""The executor on Celery: commands become messages and chords, messages become attempts."""
