"""The language model's configurations: the root of `opennmt_sd_train_lm`."""
