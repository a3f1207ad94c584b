"""What a user says before a caption or a transcription; one of each list is drawn, so that a model learns none of them
by heart."""

CAPTION_PROMPTS = (
    "Describe the picture in detail.",
    "Describe everything in the picture.",
    "Write a detailed caption for this picture.",
    "What does the picture show? Give all details.",
)
CLIP_PROMPTS = (
    "Describe the clip in detail.",
    "Describe everything that happens in the clip.",
    "Write a detailed caption for this clip.",
)
READ_PROMPTS = (
    "Read all the text in the picture.",
    "Transcribe the text of this page, line by line.",
    "Write down all the text that you see.",
)
