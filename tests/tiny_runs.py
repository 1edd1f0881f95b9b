"""Settings with which a tiny model goes through the stages in seconds."""

from titlegen.settings import TrainSettings

TRAIN = TrainSettings(
    backend="peft",
    load_in_4bit=False,
    max_length=192,
    num_train_epochs=1,
    per_device_train_batch_size=2,
    gradient_accumulation_steps=1,
    learning_rate=2e-3,
    lora_r=4,
    lora_dropout=0.0,
    logging_steps=1,
)
# To be formatted with the base model, and followed by further sections.
PROFILE = """
[data]
source = "embedded"
limit = 44
max_content_tokens = 64
test_share = 0.1
[model]
base = "{base}"
[train]
backend = "peft"
load_in_4bit = false
num_train_epochs = 1
max_length = 256
"""
