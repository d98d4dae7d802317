"""InstructBLIP with MA-LMM's memory."""
