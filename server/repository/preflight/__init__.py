"""Read and try the files of models in separate processes, with limits of time and memory."""
