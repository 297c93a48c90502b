"""What a Hugging Face Space of EasySED holds, and the scripts that make its example sounds and pictures."""
