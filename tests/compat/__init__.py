"""The SDKs of model providers, and frameworks on top of them, each as it is published today."""
