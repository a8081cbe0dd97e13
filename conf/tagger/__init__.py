"""The tagger's configurations: the root of `opennmt_sd_train_tagger`."""
