//! Examples of the Agentic Context Bus; each is a program under `src/bin`.
